import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReportTurnsRequest(_message.Message):
    __slots__ = ("gateway", "turns")
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    TURNS_FIELD_NUMBER: _ClassVar[int]
    gateway: str
    turns: _containers.RepeatedCompositeFieldContainer[Turn]
    def __init__(self, gateway: _Optional[str] = ..., turns: _Optional[_Iterable[_Union[Turn, _Mapping]]] = ...) -> None: ...

class ReportTurnsResponse(_message.Message):
    __slots__ = ("new",)
    NEW_FIELD_NUMBER: _ClassVar[int]
    new: int
    def __init__(self, new: _Optional[int] = ...) -> None: ...

class ReportFeedbackRequest(_message.Message):
    __slots__ = ("gateway", "feedback")
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    gateway: str
    feedback: _containers.RepeatedCompositeFieldContainer[Feedback]
    def __init__(self, gateway: _Optional[str] = ..., feedback: _Optional[_Iterable[_Union[Feedback, _Mapping]]] = ...) -> None: ...

class ReportFeedbackResponse(_message.Message):
    __slots__ = ("new",)
    NEW_FIELD_NUMBER: _ClassVar[int]
    new: int
    def __init__(self, new: _Optional[int] = ...) -> None: ...

class Turn(_message.Message):
    __slots__ = ("project", "request_id", "version", "conversation", "key_id", "subjects", "messages_json", "answer_json", "parameters_json", "finish_reason", "scrubbed", "sample", "started_at")
    class ScrubbedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_JSON_FIELD_NUMBER: _ClassVar[int]
    ANSWER_JSON_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_JSON_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    SCRUBBED_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    project: str
    request_id: str
    version: str
    conversation: str
    key_id: str
    subjects: _containers.RepeatedScalarFieldContainer[str]
    messages_json: str
    answer_json: str
    parameters_json: str
    finish_reason: str
    scrubbed: _containers.ScalarMap[str, int]
    sample: float
    started_at: _timestamp_pb2.Timestamp
    def __init__(self, project: _Optional[str] = ..., request_id: _Optional[str] = ..., version: _Optional[str] = ..., conversation: _Optional[str] = ..., key_id: _Optional[str] = ..., subjects: _Optional[_Iterable[str]] = ..., messages_json: _Optional[str] = ..., answer_json: _Optional[str] = ..., parameters_json: _Optional[str] = ..., finish_reason: _Optional[str] = ..., scrubbed: _Optional[_Mapping[str, int]] = ..., sample: _Optional[float] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Feedback(_message.Message):
    __slots__ = ("project", "id", "request_id", "conversation", "key_id", "subjects", "score", "thumbs", "correction", "comment", "received_at")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    THUMBS_FIELD_NUMBER: _ClassVar[int]
    CORRECTION_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    project: str
    id: str
    request_id: str
    conversation: str
    key_id: str
    subjects: _containers.RepeatedScalarFieldContainer[str]
    score: float
    thumbs: str
    correction: str
    comment: str
    received_at: _timestamp_pb2.Timestamp
    def __init__(self, project: _Optional[str] = ..., id: _Optional[str] = ..., request_id: _Optional[str] = ..., conversation: _Optional[str] = ..., key_id: _Optional[str] = ..., subjects: _Optional[_Iterable[str]] = ..., score: _Optional[float] = ..., thumbs: _Optional[str] = ..., correction: _Optional[str] = ..., comment: _Optional[str] = ..., received_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
