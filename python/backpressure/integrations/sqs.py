"""Amazon SQS through boto3: batches that fail in part raise, and errors that are not failures of the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backpressure.integrations._shared.clients import SERIALISATION, installed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["NOT_FAILURES", "RefusedError", "UnsentError", "is_failure", "send_batch", "send_batch_async"]


class UnsentError(Exception):
    """SQS did not take entries of a batch; the others were sent.

    Attributes:
        failed: SQS's answer for each of them: a dict with ``Id``, ``Code``, ``Message`` and ``SenderFault``.
        response: the whole answer; ``Successful`` has the entries that were sent.
    """

    def __init__(self, failed: Sequence[Mapping[str, Any]], response: Mapping[str, Any]) -> None:
        super().__init__(failed, response)
        self.failed = failed
        self.response = response

    def __str__(self) -> str:
        codes = ", ".join(sorted({str(entry.get("Code")) for entry in self.failed}))
        return f"SQS did not take {len(self.failed)} entries ({codes}): send those of .failed again"


class RefusedError(UnsentError):
    """All failed entries are at fault themselves, for instance too long: do not send them again."""


#: Errors of boto3 that say nothing about the queue, such as a request that it does not send, and entries that are
#: themselves at fault. For ``CircuitConfig(excluded_exceptions=NOT_FAILURES)``.
NOT_FAILURES: tuple[type[BaseException], ...] = (
    RefusedError,
    *SERIALISATION,
    *installed("botocore.exceptions:ParamValidationError"),
)

# Codes of a ``ClientError`` that are the message's fault; with or without ``AWS.SimpleQueueService.`` before them.
_NOT_FAILURES = frozenset(
    {
        "BatchEntryIdsNotDistinct",
        "BatchRequestTooLong",
        "EmptyBatchRequest",
        "InvalidAttributeValue",
        "InvalidBatchEntryId",
        "InvalidMessageContents",
        "InvalidParameterValue",
        "MissingParameter",
        "TooManyEntriesInBatchRequest",
    }
)


def is_failure(error: Exception) -> bool:
    """Tell whether an error says something about the queue.

    For ``CircuitConfig(is_failure=is_failure)``: it knows `NOT_FAILURES` and also the codes that boto3 has within one
    ``ClientError``. Thread-safe.
    """
    if isinstance(error, NOT_FAILURES):
        return False
    response = getattr(error, "response", None)
    answer = response.get("Error") if isinstance(response, dict) else None
    code = str(answer.get("Code")) if isinstance(answer, dict) else ""
    return code.rpartition(".")[2] not in _NOT_FAILURES


def send_batch(client: Any, /, **request: Any) -> Any:
    """Call ``client.send_message_batch(**request)``, return its answer, and raise if it took only some entries.

    ``controller.run("low", "mail", send_batch, client, QueueUrl=url, Entries=entries)``. Thread-safe as the client is.

    Raises:
        RefusedError: all entries that failed are at fault themselves.
        UnsentError: others failed, too.
        Exception: what the client raises.
    """
    return _all_sent(client.send_message_batch(**request))


async def send_batch_async(client: Any, /, **request: Any) -> Any:
    """As `send_batch`, for a client of aiobotocore or aioboto3."""
    return _all_sent(await client.send_message_batch(**request))


def _all_sent(response: Any) -> Any:
    failed = response.get("Failed")
    if failed:
        raise (RefusedError if all(entry.get("SenderFault") for entry in failed) else UnsentError)(failed, response)
    return response
