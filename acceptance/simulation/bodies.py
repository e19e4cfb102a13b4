"""Request bodies: what is taken, and what is refused in vLLM 0.32's words and form."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from acceptance.simulation.language import ASSISTANT, BOS, USER, Wish, encode
from acceptance.simulation.latency import constants

DEFAULT_TOKENS = 16  # of a completion without max_tokens
TEMPERATURE = 0.6  # DeepSeek-R1's generation_config
STOPS = 4
LISTED = 20  # vLLM's default --max-logprobs

Token = Annotated[int, Field(ge=0)]


class Refused(Exception):
    """A request that is not served. plain: in the web framework's own form."""

    def __init__(
        self, message: str, status: int = 400, kind: str = "BadRequestError", plain: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.plain = status, kind, plain

    @property
    def body(self) -> dict[str, Any]:
        if self.plain:
            return {"detail": str(self)}
        error = {"message": str(self), "type": self.kind, "param": None, "code": self.status}
        return {"error": error}


class Asked(BaseModel):
    """What text completions and chats share. Unknown fields pass, as in vLLM 0.32."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    max_tokens: int | None = None
    n: int = Field(default=1, ge=1, le=16384)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = Field(default=0, ge=0)
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    prompt_logprobs: int | None = None
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False

    @property
    def cap(self) -> int | None:
        """Output tokens asked for."""
        return self.max_tokens

    @property
    def listed(self) -> int | None:
        """Alternatives listed beside each token; None without log-probabilities."""
        return None

    @property
    def usage_in_stream(self) -> bool:
        return bool((self.stream_options or {}).get("include_usage"))

    def wish(self, tokens: int, choice: int, disturbance: int) -> Wish:
        """How to generate one choice of so many tokens."""
        temperature = TEMPERATURE if self.temperature is None else self.temperature
        seed = os.urandom(8).hex() if self.seed is None else self.seed
        return Wish(
            tokens=tokens,
            least=self.min_tokens,
            temperature=temperature,
            salt=f"{seed} {choice}" if temperature else None,
            stop=tuple([self.stop] if isinstance(self.stop, str) else self.stop or ()),
            stop_ids=tuple(self.stop_token_ids or ()),
            keep_stop=self.include_stop_str_in_output,
            ignore_eos=self.ignore_eos,
            disturbance=disturbance,
        )


class Completion(Asked):
    """Of /v1/completions."""

    prompt: str | list[Token] | list[str] | list[list[Token]] | None = None
    echo: bool = False
    logprobs: int | None = Field(default=None, ge=0)

    @property
    def listed(self) -> int | None:
        return self.logprobs

    def prompts(self) -> list[list[int]]:
        """Each prompt as token ids. Raises Refused for none and for ids beyond the vocabulary."""
        given = self.prompt
        if not given:
            raise Refused("Either prompt or prompt_embeds must be provided and non-empty.")
        if isinstance(given, str):
            return [encode(given)]
        if isinstance(given[0], int):
            prompts: list[list[int]] = [given]
        else:
            prompts = [encode(one) if isinstance(one, str) else one for one in given]
        for prompt in prompts:
            if not prompt:
                raise Refused("The decoder prompt cannot be empty")
            if max(prompt) >= constants()["model"]["vocabulary"]:
                raise Refused(f"Token id {max(prompt)} is out of vocabulary")
        return prompts


class Part(BaseModel):
    type: Literal["text"]
    text: str


class Message(BaseModel):
    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class Chat(Asked):
    """Of /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0)
    add_generation_prompt: bool = True

    @property
    def cap(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def listed(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def prompts(self) -> list[list[int]]:
        """The rendered conversation, as checkpoint.TEMPLATE has it."""
        tokens = [BOS]
        for message in self.messages:
            head = {"user": [USER], "assistant": [ASSISTANT]}.get(message.role, [])
            tokens += head + encode(message.text)
        return [tokens + ([ASSISTANT] if self.add_generation_prompt else [])]


def read_json(raw: bytes, content_type: str) -> Any:
    """Raises Refused for what is no JSON."""
    if content_type.split(";")[0].strip() != "application/json":
        raise Refused("Unsupported Media Type: Only 'application/json' is allowed")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise Refused("There was an error parsing the body", plain=True) from None
    try:
        return json.loads(text)
    except ValueError as error:
        raise Refused(f"JSON decode error: {error}", kind="Bad Request") from None


def read_asked(
    kind: type[Completion] | type[Chat], data: Any, served: str, limit: int
) -> Completion | Chat:
    """Checks a body as vLLM does. limit: tokens of prompt and output. Raises Refused."""
    try:
        asked = kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused(f"{where}: {first['msg']}", kind="Bad Request") from None
    if asked.model not in (None, served):
        message = f"The model `{asked.model}` does not exist."
        raise Refused(message, status=404, kind="NotFoundError")
    _check(asked, limit)
    return asked


def tokens_of(asked: Completion | Chat, prompt: list[int], limit: int) -> int:
    """Output tokens of this prompt. Raises Refused where the prompt leaves no room."""
    room = limit - len(prompt)
    if room < 0 or (room == 0 and asked.cap != 0):
        raise Refused(
            f"This model's maximum context length is {limit} tokens. However, your request has "
            f"{len(prompt)} input tokens. Please reduce the length of the input messages."
        )
    default = room if isinstance(asked, Chat) else min(DEFAULT_TOKENS, room)
    wanted = default if asked.cap is None else asked.cap
    if wanted > room:
        raise Refused(
            f"'max_tokens' is too large: {wanted}. This model's maximum context length is {limit} "
            f"tokens and your request has {len(prompt)} input tokens."
        )
    return wanted


def _check(asked: Completion | Chat, limit: int) -> None:
    scored = isinstance(asked, Completion) and asked.echo
    stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    cap = asked.cap
    if cap is not None and cap < (0 if scored else 1):
        raise Refused(f"max_tokens must be at least 1, got {cap}.")
    if cap is not None and cap > limit:
        raise Refused(f"max_tokens={cap} cannot be greater than max_model_len={limit}.")
    if cap is not None and asked.min_tokens > cap:
        raise Refused(f"min_tokens must be at most max_tokens={cap}, got {asked.min_tokens}.")
    if asked.n > 1 and asked.temperature == 0:
        raise Refused(f"n must be 1 when using greedy sampling, got {asked.n}.")
    if "" in stops or len(stops) > STOPS:
        raise Refused(f"stop takes at most {STOPS} strings, and no empty one.")
    if max(asked.listed or 0, asked.prompt_logprobs or 0) > LISTED:
        raise Refused(f"Requested more log-probabilities than the maximum of {LISTED}.")
    if isinstance(asked, Chat) and asked.top_logprobs and not asked.logprobs:
        raise Refused("when using `top_logprobs`, `logprobs` must be set to true.")
    if asked.stream_options and not asked.stream:
        raise Refused("Stream options can only be defined when `stream=True`.")
    if asked.prompt_logprobs is not None and asked.stream:
        raise Refused("`prompt_logprobs` are not available when `stream=True`.")
