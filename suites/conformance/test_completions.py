"""Text completions: the form of an answer, kinds of prompts, seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acceptance.conformance.answers import read_answer, shape_problems
from acceptance.conformance.bodies import COMPLETIONS, PROMPT, completion
from acceptance.conformance.said import said
from suites.conformance.holding import specified

if TYPE_CHECKING:
    import httpx

    from acceptance.conformance.said import Said
    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck

SEEDS = (1, 2, 3, 4)


def test_shape(server: Server, http: httpx.Client, record_check: RecordCheck) -> None:
    """An answer fits the schema of OpenAI's client, names our model and says something.

    Does not prove that what it says makes sense. Would have caught vllm#55486: only BOS tokens,
    and so an empty text.
    """
    answer = read_answer(http.post(COMPLETIONS, json=completion(server.model)))
    specified(record_check, shape_problems("completion", answer, model=server.model))


def test_token_prompt(server: Server, http: httpx.Client, record_check: RecordCheck) -> None:
    """A prompt given as /tokenize's ids is continued like the same prompt given as text.

    Does not prove that the tokenizer is the model's. Would have caught a second BOS token put
    before prompts, which costs accuracy and shows nowhere else.
    """
    tokenized = read_answer(http.post("/tokenize", json={"model": server.model, "prompt": PROMPT}))
    by_ids = _ask(http, completion(server.model, prompt=tokenized["tokens"]))
    by_text = _ask(http, completion(server.model))
    same = by_ids == by_text
    specified(record_check, [] if same else [f"by ids {by_ids.text!r}, by text {by_text.text!r}"])


def test_prompt_list(server: Server, http: httpx.Client, record_check: RecordCheck) -> None:
    """A list of three prompts gives three choices, numbered in its order.

    Does not prove that they are not mixed up (see correctness). Would have caught choices in the
    order of their finishing.
    """
    body = completion(server.model, prompt=[PROMPT, PROMPT[:9], PROMPT[:4]], max_tokens=4)
    answer = read_answer(http.post(COMPLETIONS, json=body))
    problems = shape_problems("completion", answer, model=server.model, choices=3)
    numbers = [choice["index"] for choice in answer["choices"]]
    if numbers != sorted(numbers):
        problems.append(f"choices come in the order {numbers}")
    specified(record_check, problems)


def test_echo(server: Server, http: httpx.Client, record_check: RecordCheck) -> None:
    """echo gives the prompt back before what was generated, and counts it as no output.

    Does not prove its log-probabilities (see test_logprobs). Would have caught scoring of a prompt
    that the server had cut.
    """
    plain = _ask(http, completion(server.model))
    echoed = _ask(http, completion(server.model, echo=True))
    whole = PROMPT + plain.text
    problems = [] if echoed.text == whole else [f"says {echoed.text!r}, not {whole!r}"]
    specified(record_check, problems)


def test_seed(server: Server, http: httpx.Client, record_check: RecordCheck) -> None:
    """At temperature 1 one seed gives one text, and four seeds give more than one.

    Does not prove it under load, where batches change the arithmetic. Would have caught a seed
    that is ignored, and a temperature that is.
    """
    texts = {seed: _sampled(http, server.model, seed) for seed in SEEDS}
    again = _sampled(http, server.model, SEEDS[0])
    problems = [] if again == texts[SEEDS[0]] else [f"{texts[SEEDS[0]]!r} and then {again!r}"]
    if len(set(texts.values())) == 1:
        problems.append(f"seeds {SEEDS} all give {again!r}")
    specified(record_check, problems)


def _sampled(http: httpx.Client, model: str, seed: int) -> str:
    return _ask(http, completion(model, temperature=1, top_p=1, seed=seed)).text


def _ask(http: httpx.Client, body: dict[str, object]) -> Said:
    return said(read_answer(http.post(COMPLETIONS, json=body)))
