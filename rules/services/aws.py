"""AWS, whose services speak four protocols: S3's XML, the query XML, EC2's, and JSON.

botocore makes a `ClientError` whose `Error.Code` is read from the XML, from `x-amzn-errortype` or from `__type`
(`parsers.py`); the code is AWS's own word there, because programs and its retries branch on it, and ours stands in the
headers, in the message and in the body. It retries 429 and 5xx, and waits as `x-amz-retry-after` says (milliseconds, at
most five seconds more than it would have: `retries/standard.py`); no header stops it.
"""

from typing import Final
from xml.sax.saxutils import escape

from rules.services.service import Asked, Envelope, Problem, Service, beside, kind

_XML: Final = "text/xml"
_WORDS: Final = {
    400: "ValidationError", 401: "InvalidClientTokenId", 403: "AccessDenied", 429: "Throttling",
}  # fmt: skip
_JSON_WORDS: Final = {
    400: "ValidationException", 401: "UnrecognizedClientException", 403: "AccessDeniedException",
    429: "ThrottlingException",
}  # fmt: skip
_FORM: Final = "application/x-www-form-urlencoded"
_XML_HOSTS: Final = ("route53", "cloudfront")
"""Services whose REST protocol is XML; S3 has another form of it, all others take JSON."""


def envelope(problem: Problem, asked: Asked) -> Envelope:
    """Its error in the form of the protocol that the request spoke."""
    headers = [("x-amzn-requestid", problem.call)]
    if problem.retry_after_seconds is not None:
        headers.append(("x-amz-retry-after", str(problem.retry_after_seconds * 1000)))
    label = asked.host.split(".")
    word = kind(problem.status, _WORDS, "ServiceUnavailable")
    error = f"<Code>{word}</Code><Message>{escape(problem.message)}</Message>"
    if "s3" in label or any(part.startswith("s3-") for part in label):
        word = "SlowDown" if problem.status == 429 else word
        error = f"<Code>{word}</Code><Message>{escape(problem.message)}</Message>"
        body = f"<Error>{error}{_members(problem)}<RequestId>{problem.call}</RequestId></Error>"
    elif label[0] == "ec2":
        error = f"<Errors><Error>{error}{_members(problem)}</Error></Errors>"
        body = f"<Response>{error}<RequestID>{problem.call}</RequestID></Response>"
    elif asked.content_type == _FORM or label[0] in _XML_HOSTS:
        error = f"<Error><Type>Sender</Type>{error}{_members(problem)}</Error>"
        body = f"<ErrorResponse>{error}<RequestId>{problem.call}</RequestId></ErrorResponse>"
    else:
        word = kind(problem.status, _JSON_WORDS, "ServiceUnavailableException")
        headers.append(("x-amzn-errortype", word))
        own = beside(problem, __type=word, message=problem.message)
        return Envelope("application/x-amz-json-1.0", own, tuple(headers))
    return Envelope(_XML, f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'.encode(), tuple(headers))


def _members(problem: Problem) -> str:
    members = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in problem.members.items())
    return f"<Exeat>{members}</Exeat>"


AWS: Final = Service("aws", ("*.amazonaws.com",), envelope, None)
