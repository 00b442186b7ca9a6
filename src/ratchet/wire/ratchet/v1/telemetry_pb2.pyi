import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReportRecordsRequest(_message.Message):
    __slots__ = ("gateway", "records", "assignments")
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    gateway: str
    records: _containers.RepeatedCompositeFieldContainer[Record]
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    def __init__(self, gateway: _Optional[str] = ..., records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ..., assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("request_id", "version", "route_revision", "conversation", "known")
    class KnownEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROUTE_REVISION_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    version: str
    route_revision: int
    conversation: str
    known: _containers.ScalarMap[str, str]
    def __init__(self, request_id: _Optional[str] = ..., version: _Optional[str] = ..., route_revision: _Optional[int] = ..., conversation: _Optional[str] = ..., known: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ReportRecordsResponse(_message.Message):
    __slots__ = ("new",)
    NEW_FIELD_NUMBER: _ClassVar[int]
    new: int
    def __init__(self, new: _Optional[int] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("request_id", "version", "routed", "route_revision", "conversation", "key_id", "status", "attempts", "first_byte_us", "duration_us", "overhead_us", "bytes_sent", "prompt_tokens", "completion_tokens", "started_at", "flags", "sampled", "cache", "known")
    class KnownEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROUTED_FIELD_NUMBER: _ClassVar[int]
    ROUTE_REVISION_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    FIRST_BYTE_US_FIELD_NUMBER: _ClassVar[int]
    DURATION_US_FIELD_NUMBER: _ClassVar[int]
    OVERHEAD_US_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    version: str
    routed: str
    route_revision: int
    conversation: str
    key_id: str
    status: int
    attempts: int
    first_byte_us: int
    duration_us: int
    overhead_us: int
    bytes_sent: int
    prompt_tokens: int
    completion_tokens: int
    started_at: _timestamp_pb2.Timestamp
    flags: str
    sampled: bool
    cache: str
    known: _containers.ScalarMap[str, str]
    def __init__(self, request_id: _Optional[str] = ..., version: _Optional[str] = ..., routed: _Optional[str] = ..., route_revision: _Optional[int] = ..., conversation: _Optional[str] = ..., key_id: _Optional[str] = ..., status: _Optional[int] = ..., attempts: _Optional[int] = ..., first_byte_us: _Optional[int] = ..., duration_us: _Optional[int] = ..., overhead_us: _Optional[int] = ..., bytes_sent: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., flags: _Optional[str] = ..., sampled: _Optional[bool] = ..., cache: _Optional[str] = ..., known: _Optional[_Mapping[str, str]] = ...) -> None: ...
