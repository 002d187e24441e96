"""The SDKs at the base-URL door itself: the Exeat credential is their API key, and nothing else is set.

The same three questions as in `test_vendor_sdks.py`. Here each SDK that can wait for a rate limit is asked to.
"""

import pytest

from tests.clients.sdks.conftest import Run, Sdks, later
from tests.clients.sdks.test_vendor_sdks import BEARER
from tests.clients.sdks.vendors import ACCOUNT, SECRET


def waits(run: Run, name: str) -> None:
    """Allowed, then refused by rate, then allowed, then denied and not tried again."""
    assert run.verdicts() == [(name, "allow"), (name, "rate_limited"), (name, "allow"), (name, "not_allowed")]
    run.waited(1)


OPENAI = """
import openai
client = openai.OpenAI(api_key=key, base_url=f"{base}/openai/v1", timeout=20)
ask = dict(model="m", messages=[{"role": "user", "content": "hello"}])
for _ in range(2): tell(text=client.chat.completions.create(**ask).choices[0].message.content)
error = refusal(lambda: client.models.list(), openai.PermissionDeniedError)
tell(status=error.status_code, code=error.code)
"""
ANTHROPIC = """
import anthropic
client = anthropic.Anthropic(api_key=key, base_url=f"{base}/anthropic", timeout=20)
ask = dict(model="m", max_tokens=9, messages=[{"role": "user", "content": "hello"}])
for _ in range(2): tell(text=client.messages.create(**ask).content[0].text)
error = refusal(lambda: client.models.list(), anthropic.PermissionDeniedError)
tell(status=error.status_code, code=error.error_code)
"""
SLACK = """
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler
client = WebClient(token=key, base_url=f"{base}/slack/api/", timeout=20)
client.retry_handlers.append(RateLimitErrorRetryHandler(max_retry_count=1))
for _ in range(2): tell(text=client.chat_postMessage(channel="C1", text="hello")["ts"])
error = refusal(lambda: client.users_list(), SlackApiError)
tell(status=error.response.status_code, code=error.response["code"])
"""
GITHUB = """
import github
login = github.Auth.Token(key)
client = github.Github(base_url=f"{base}/github", auth=login, timeout=20, seconds_between_requests=None)
for _ in range(2): tell(text=client.get_user().login)
error = refusal(lambda: client.get_repo("acme/tools"), github.GithubException)
tell(status=error.status, code=error.data["code"])
"""


@pytest.mark.parametrize(
    ("client", "host", "text", "field"),
    [
        pytest.param(OPENAI, "api.openai.com", "Once upon a time", ("authorization", BEARER), id="openai"),
        pytest.param(ANTHROPIC, "api.anthropic.com", "Once upon a time", ("x-api-key", SECRET), id="anthropic"),
        pytest.param(SLACK, "slack.com", "1.2", ("authorization", BEARER), id="slack"),
        pytest.param(GITHUB, "api.github.com", "octocat", ("authorization", BEARER), id="github"),
    ],
)
def test_an_sdk_that_waits(
    sdks: Sdks, client: str, host: str, text: str, field: tuple[str, str], request: pytest.FixtureRequest
) -> None:
    run = sdks.at_the_door(client)
    first, second, denied = run.told
    assert first == second == {"text": text}
    assert denied == {"status": 403, "code": "not_allowed"}
    waits(run, request.node.callspec.id)
    name, value = field
    assert [(seen.header("host"), seen.header(name)) for seen in run.requests] == [(host, value)] * 2


STRIPE = """
import stripe
client = stripe.StripeClient(key, base_addresses={"api": f"{base}/stripe"})
tell(text=client.v1.refunds.create({"charge": "ch_1", "amount": 100}).id)
error = refusal(lambda: client.v1.payouts.create({"amount": 100, "currency": "usd"}), stripe.PermissionError)
tell(status=error.http_status, code=error.error.code)
error = refusal(lambda: client.v1.refunds.create({"charge": "ch_1"}), stripe.RateLimitError)
tell(status=error.http_status, code=error.error.code, wait=error.headers["Retry-After"])
"""
TWILIO = f"""
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client
class AtTheDoor(TwilioHttpClient):
    def request(self, method, url, *arguments, **how):
        return super().request(method, url.replace("https://api.twilio.com", base + "/twilio", 1), *arguments, **how)
client = Client("{ACCOUNT}", key, http_client=AtTheDoor(timeout=20))
say = dict(to="+15550001", from_="+15550002", body="hello")
tell(text=client.messages.create(**say).sid)
error = refusal(lambda: client.calls.create(to="+15550001", from_="+15550002", url="https://x.example"),
                TwilioRestException)
tell(status=error.status, code=error.details["code"])
error = refusal(lambda: client.messages.create(**say), TwilioRestException)
tell(status=error.status, code=error.details["code"], wait=str(error.details["retry_after"]))
"""
S3 = """
import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
config = Config(signature_version=UNSIGNED, retries={"mode": "standard", "total_max_attempts": 1})
s3 = boto3.client("s3", region_name="us-east-1", endpoint_url=f"{base}/s3", config=config)
s3.meta.events.register("before-call", lambda params, **_: params["headers"].update({"X-Api-Key": key}))
def show(error):
    meta = error.response["ResponseMetadata"]
    tell(status=meta["HTTPStatusCode"], code=meta["HTTPHeaders"]["exeat-code"], kind=error.response["Error"]["Code"],
         **{"wait": meta["HTTPHeaders"]["retry-after"]} if meta["HTTPStatusCode"] == 429 else {})
tell(text=s3.get_object(Bucket="reports", Key="june.csv")["Body"].read().decode())
show(refusal(lambda: s3.get_object(Bucket="reports", Key="july.csv"), s3.exceptions.ClientError))
show(refusal(lambda: s3.get_object(Bucket="reports", Key="june.csv"), ClientError))
"""


@pytest.mark.parametrize(
    ("client", "host", "text"),
    [
        pytest.param(STRIPE, "api.stripe.com", "re_1", id="stripe"),
        pytest.param(TWILIO, "api.twilio.com", "SM1", id="twilio"),
        pytest.param(S3, "s3.amazonaws.com", "a,b\n", id="s3"),
    ],
)
def test_an_sdk_that_does_not_wait(
    sdks: Sdks, client: str, host: str, text: str, request: pytest.FixtureRequest
) -> None:
    run = sdks.at_the_door(client)
    allowed, denied, limited = run.told
    if request.node.callspec.id == "s3":
        assert (denied.pop("kind"), limited.pop("kind")) == ("AccessDenied", "SlowDown")
    assert allowed == {"text": text}
    assert denied == {"status": 403, "code": "not_allowed"}
    assert later(limited.pop("wait"))
    assert limited == {"status": 429, "code": "rate_limited"}
    name = request.node.callspec.id
    assert run.verdicts() == [(name, "allow"), (name, "not_allowed"), (name, "rate_limited")]
    (seen,) = run.requests
    assert seen.header("host") == host
    assert (seen.header("x-api-key"), SECRET in (seen.header("authorization") or "")) == (None, name == "stripe")


STS = """
import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
config = Config(signature_version=UNSIGNED, retries={"mode": "standard", "total_max_attempts": 3})
sts = boto3.client("sts", region_name="us-east-1", endpoint_url=f"{base}/sts", config=config)
sts.meta.events.register("before-call", lambda params, **_: params["headers"].update({"X-Api-Key": key}))
for _ in range(2): tell(text=sts.get_caller_identity()["Account"])
error = refusal(lambda: sts.get_session_token(), ClientError)
tell(kind=error.response["Error"]["Code"], code=error.response["ResponseMetadata"]["HTTPHeaders"]["exeat-code"])
"""


def test_boto3_waits(sdks: Sdks) -> None:
    run = sdks.at_the_door(STS)
    *allowed, denied = run.told
    assert allowed == [{"text": "123456789012"}] * 2
    assert denied == {"kind": "AccessDenied", "code": "not_allowed"}
    waits(run, "sts")


GOOGLE = """
import random
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError
where = {"api_endpoint": f"{base}/google/drive/v3/"}
drive = build("drive", "v3", developerKey=key, cache_discovery=False, client_options=where)
random.seed(3)  # its pauses: half a second, then two
for _ in range(2): tell(text=drive.files().list().execute(num_retries=5)["files"][0]["id"])
error = refusal(lambda: drive.files().delete(fileId="f1").execute(num_retries=5), HttpError)
tell(status=error.status_code, code=error.error_details[0]["reason"])
"""


def test_google_waits_for_a_time_of_its_own(sdks: Sdks) -> None:
    run = sdks.at_the_door(GOOGLE)
    first, second, denied = run.told
    assert first == second == {"text": "f1"}
    assert denied == {"status": 403, "code": "not_allowed"}
    verdicts = [verdict for _, verdict in run.verdicts()]
    assert (verdicts[0], *verdicts[-2:]) == ("allow", "allow", "not_allowed")
    assert set(verdicts[1:-2]) == {"rate_limited"}
    seen = [(request.header("authorization"), "key=" in request.target) for request in run.requests]
    assert seen == [(BEARER, False)] * 2
