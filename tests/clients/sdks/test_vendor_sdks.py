"""The vendors' own SDKs: each gets through, raises its own exception with our code, and obeys a rate limit.

One program each, so that an SDK is imported once. The account may make one call on a connection and the next two
seconds later where the SDK waits, else an hour later; what no rule allows is denied before it counts.
"""

from base64 import b64encode

from tests.clients.sdks.conftest import AGENTS_OWN, Sdks, later, soon
from tests.clients.sdks.vendors import ACCOUNT, SECRET

BEARER = f"Bearer {SECRET}"


ANTHROPIC = """
import anthropic
client = anthropic.Anthropic(api_key=sys.argv[1], timeout=20)
ask = dict(model="m", max_tokens=9, messages=[{"role": "user", "content": "hello"}])
tell(text=client.messages.create(**ask).content[0].text)
error = refusal(lambda: client.models.list(), anthropic.PermissionDeniedError)
tell(status=error.status_code, type=error.type, code=error.error_code, call=error.request_id, body=error.body["code"],
     message=error.api_message)
tell(text=client.messages.create(**ask).content[0].text)
error = refusal(lambda: client.with_options(max_retries=0).messages.create(**ask), anthropic.RateLimitError)
tell(type=error.type, code=error.error_code, wait=error.response.headers["retry-after"])
"""


def test_anthropic(sdks: Sdks) -> None:
    run = sdks.run(ANTHROPIC, AGENTS_OWN)
    first, denied, second, limited = run.told
    assert first == second == {"text": "Once upon a time"}
    assert (denied["status"], denied["type"], denied["code"], denied["body"]) == (
        403, "permission_error", "not_allowed", "not_allowed",
    )  # fmt: skip
    assert denied["message"].startswith("not_allowed: ")
    assert denied["call"] == run.records[1]["call"]
    assert (limited["type"], limited["code"], soon(limited["wait"])) == ("rate_limit_error", "rate_limited", True)
    assert run.verdicts() == [
        ("anthropic", "allow"), ("anthropic", "not_allowed"), ("anthropic", "rate_limited"), ("anthropic", "allow"),
        ("anthropic", "rate_limited"),
    ]  # fmt: skip
    run.waited(2)
    for request in run.requests:
        assert request.header("x-api-key") == SECRET


STRIPE = """
import stripe
stripe.ca_bundle_path = os.environ["SSL_CERT_FILE"]
stripe.api_key = sys.argv[1]
tell(id=stripe.Refund.create(charge="ch_1", amount=100).id)
error = refusal(lambda: stripe.Payout.create(amount=100, currency="usd"), stripe.PermissionError)
tell(status=error.http_status, code=error.error.code, type=error.error.type, body=error.json_body["code"],
     message=error.user_message, call=error.json_body["call"])
error = refusal(lambda: stripe.Refund.create(charge="ch_1"), stripe.RateLimitError)
tell(code=error.error.code, wait=error.headers["Retry-After"])
"""


def test_stripe(sdks: Sdks) -> None:
    """It retries no 429 by itself, and says how long to wait."""
    run = sdks.run(STRIPE, AGENTS_OWN)
    allowed, denied, limited = run.told
    assert allowed == {"id": "re_1"}
    assert (denied["status"], denied["code"], denied["type"], denied["body"]) == (
        403, "not_allowed", "invalid_request_error", "not_allowed",
    )  # fmt: skip
    assert denied["call"] == run.records[1]["call"]
    assert later(limited.pop("wait"))
    assert limited == {"code": "rate_limited"}
    assert run.verdicts() == [("stripe", "allow"), ("stripe", "not_allowed"), ("stripe", "rate_limited")]
    (request,) = run.requests
    assert request.header("authorization") == BEARER


SLACK = """
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
client = WebClient(token=sys.argv[1], timeout=20)
say = dict(channel="C1", text="hello")
tell(ts=client.chat_postMessage(**say)["ts"])
error = refusal(lambda: client.users_list(), SlackApiError)
tell(status=error.response.status_code, error=error.response["error"], code=error.response["code"], text=str(error))
error = refusal(lambda: client.chat_postMessage(**say), SlackApiError)
tell(error=error.response["error"], wait=error.response.headers["Retry-After"])
"""


def test_slack(sdks: Sdks) -> None:
    """It retries only with its own handler, which is shown at the base-URL door."""
    run = sdks.run(SLACK, AGENTS_OWN)
    allowed, denied, limited = run.told
    assert allowed == {"ts": "1.2"}
    assert (denied["status"], denied["error"], denied["code"]) == (403, "not_allowed", "not_allowed")
    assert "not_allowed" in denied["text"]
    assert later(limited.pop("wait"))
    assert limited == {"error": "rate_limited"}
    assert run.verdicts() == [("slack", "allow"), ("slack", "not_allowed"), ("slack", "rate_limited")]
    (request,) = run.requests
    assert request.header("authorization") == BEARER


GITHUB = """
import github
client = github.Github(auth=github.Auth.Token(sys.argv[1]), timeout=20, seconds_between_requests=None)
tell(login=client.get_user().login)
error = refusal(lambda: client.get_repo("acme/tools"), github.GithubException)
tell(kind=type(error).__name__, status=error.status, code=error.data["code"], call=error.data["call"], text=str(error))
tell(login=client.get_user().login)
client = github.Github(auth=github.Auth.Token(sys.argv[1]), timeout=20, retry=None, seconds_between_requests=None)
error = refusal(lambda: client.get_user().login, github.GithubException)
tell(status=error.status, code=error.data["code"], wait=error.headers["retry-after"])
"""


def test_github(sdks: Sdks) -> None:
    """It waits as long as Retry-After says and goes on; it retries no denial."""
    run = sdks.run(GITHUB, AGENTS_OWN)
    first, denied, second, limited = run.told
    assert first == second == {"login": "octocat"}
    assert (denied["kind"], denied["status"], denied["code"]) == ("GithubException", 403, "not_allowed")
    assert denied["call"] == run.records[1]["call"]
    assert soon(limited.pop("wait"))
    assert limited == {"status": 429, "code": "rate_limited"}
    assert [verdict for _, verdict in run.verdicts()] == [
        "allow", "not_allowed", "rate_limited", "allow", "rate_limited",
    ]  # fmt: skip
    run.waited(2)
    assert {request.header("authorization") for request in run.requests} == {BEARER}


GOOGLE = """
from google.auth.credentials import AnonymousCredentials
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError
drive = build("drive", "v3", credentials=AnonymousCredentials(), cache_discovery=False)
tell(files=drive.files().list().execute()["files"])
error = refusal(lambda: drive.files().delete(fileId="f1").execute(), HttpError)
(info,) = error.error_details
tell(status=error.status_code, reason=error.reason, code=info["reason"], call=info["metadata"]["call"],
     header=error.resp["exeat-code"])
error = refusal(lambda: drive.files().list().execute(), HttpError)
tell(status=error.status_code, code=error.error_details[0]["reason"], wait=error.resp["retry-after"])
"""


def test_google(sdks: Sdks) -> None:
    """It retries nothing that it was not asked to, and says how long to wait."""
    run = sdks.run(GOOGLE)
    allowed, denied, limited = run.told
    assert allowed == {"files": [{"id": "f1"}]}
    assert (denied["status"], denied["code"], denied["header"]) == (403, "not_allowed", "not_allowed")
    assert denied["reason"].startswith("not_allowed: ")
    assert denied["call"] == run.records[1]["call"]
    assert later(limited.pop("wait"))
    assert limited == {"status": 429, "code": "rate_limited"}
    assert [verdict for _, verdict in run.verdicts()] == ["allow", "not_allowed", "rate_limited"]
    (request,) = run.requests
    assert request.header("authorization") == BEARER


TWILIO = """
from twilio.base.exceptions import TwilioRestException
from twilio.rest import Client
client = Client(sys.argv[2], sys.argv[1])
say = dict(to="+15550001", from_="+15550002", body="hello")
tell(sid=client.messages.create(**say).sid)
error = refusal(lambda: client.calls.create(to="+15550001", from_="+15550002", url="https://x.example"),
                TwilioRestException)
tell(status=error.status, number=error.code, code=error.details["code"], call=error.details["call"], text=error.msg)
error = refusal(lambda: client.messages.create(**say), TwilioRestException)
tell(status=error.status, number=error.code, code=error.details["code"], wait=error.details["retry_after"])
"""


def test_twilio(sdks: Sdks) -> None:
    run = sdks.run(TWILIO, AGENTS_OWN, ACCOUNT)
    allowed, denied, limited = run.told
    assert allowed == {"sid": "SM1"}
    assert (denied["status"], denied["number"], denied["code"]) == (403, 20006, "not_allowed")
    assert "not_allowed: " in denied["text"]
    assert denied["call"] == run.records[1]["call"]
    assert later(limited.pop("wait"))
    assert limited == {"status": 429, "number": 20429, "code": "rate_limited"}
    assert [verdict for _, verdict in run.verdicts()] == ["allow", "not_allowed", "rate_limited"]
    (request,) = run.requests
    assert request.header("authorization") == "Basic " + b64encode(f"{ACCOUNT}:{SECRET}".encode()).decode()


BOTO3 = """
import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
def client(name, attempts):
    config = Config(signature_version=UNSIGNED, retries={"mode": "standard", "total_max_attempts": attempts},
                    s3={"addressing_style": "path"})
    return boto3.client(name, region_name="us-east-1", config=config)
def show(error):
    meta = error.response["ResponseMetadata"]
    tell(kind=error.response["Error"]["Code"], status=meta["HTTPStatusCode"], code=meta["HTTPHeaders"]["exeat-code"],
         attempts=meta["RetryAttempts"], message=error.response["Error"]["Message"], call=meta["RequestId"],
         wait=meta["HTTPHeaders"].get("retry-after"))
sts, s3, tables = client("sts", 3), client("s3", 1), client("dynamodb", 3)
tell(account=sts.get_caller_identity()["Account"])
show(refusal(lambda: s3.get_object(Bucket="reports", Key="july.csv"), ClientError))
show(refusal(lambda: tables.list_tables(), tables.exceptions.ClientError))
tell(account=sts.get_caller_identity()["Account"])
show(refusal(lambda: client("sts", 1).get_caller_identity(), ClientError))
tell(object=s3.get_object(Bucket="reports", Key="june.csv")["Body"].read().decode())
show(refusal(lambda: s3.get_object(Bucket="reports", Key="june.csv"), ClientError))
"""


def test_boto3(sdks: Sdks) -> None:
    """Query, S3 and JSON protocols, unsigned; botocore's own pause is longer where Retry-After is short."""
    run = sdks.run(BOTO3)
    first, s3, tables, second, sts, document, slow = run.told
    assert first == second == {"account": "123456789012"}
    assert (s3["kind"], s3["status"], s3["code"], s3["attempts"]) == ("AccessDenied", 403, "not_allowed", 0)
    assert (tables["kind"], tables["code"], tables["attempts"]) == ("AccessDeniedException", "not_allowed", 0)
    assert tables["call"] == next(r["call"] for r in run.records if r["op"]["connector"] == "dynamodb")
    assert tables["message"].startswith("not_allowed: ")
    assert (sts["kind"], sts["status"], sts["code"], soon(sts["wait"])) == ("Throttling", 429, "rate_limited", True)
    assert document == {"object": "a,b\n"}
    assert (slow["kind"], slow["status"], slow["code"], later(slow["wait"])) == ("SlowDown", 429, "rate_limited", True)
    assert run.verdicts() == [
        ("sts", "allow"), ("s3", "not_allowed"), ("dynamodb", "not_allowed"), ("sts", "rate_limited"), ("sts", "allow"),
        ("sts", "rate_limited"), ("s3", "allow"), ("s3", "rate_limited"),
    ]  # fmt: skip
    run.waited(3)
