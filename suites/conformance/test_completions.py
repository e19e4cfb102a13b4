"""Text completions: the form of an answer, kinds of prompts, seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from acceptance.conformance.answers import read_answer, shape_problems
from acceptance.conformance.bodies import COMPLETIONS, PROMPT, completion
from acceptance.conformance.said import said
from suites.checklist import check
from suites.conformance.asking import Requests
from suites.conformance.holding import beyond_simulation, specified

if TYPE_CHECKING:
    import httpx

    from acceptance.deployments.schema import Deployment
    from acceptance.serving.server import Server
    from fixtures.judging import RecordCheck
    from suites.conformance.asking import Answers

TOGETHER = Requests()
PLAIN = TOGETHER.whole("completion")
LIST = TOGETHER.whole("completion", prompt=[PROMPT, PROMPT[:9], PROMPT[:4]], max_tokens=4)
SAMPLED: dict[str, Any] = {"temperature": 1, "top_p": 1, "max_tokens": 12}
OTHERS = [TOGETHER.whole("completion", **SAMPLED, seed=seed) for seed in (2, 3, 4)]
STEP = 8192  # tokens of a step where the deployment leaves them to vLLM
COMPARED = Requests(alone=True)
BY_TEXT = COMPARED.whole("completion", max_tokens=8)
ECHOED = COMPARED.whole("completion", max_tokens=8, echo=True)
SEEDED = [COMPARED.whole("completion", **SAMPLED, seed=1) for _ in range(2)]


@check(13)
def test_shape(server: Server, answers: Answers, record_check: RecordCheck) -> None:
    """An answer fits the schema of OpenAI's client, names our model and says something.

    Does not prove that what it says makes sense. Would have caught vllm#55486: only BOS tokens,
    and so an empty text.
    """
    specified(record_check, shape_problems("completion", answers.whole(PLAIN), model=server.model))


@check(16)
def test_token_prompt(
    server: Server, http: httpx.Client, answers: Answers, record_check: RecordCheck
) -> None:
    """A prompt given as /tokenize's ids is continued like the same prompt given as text.

    Does not prove that the tokenizer is the model's. Would have caught a second BOS token put
    before prompts, which costs accuracy and shows nowhere else.
    """
    by_text = said(answers.whole(BY_TEXT))
    tokenized = read_answer(http.post("/tokenize", json={"model": server.model, "prompt": PROMPT}))
    asked = completion(server.model, prompt=tokenized["tokens"], max_tokens=8)
    by_ids = said(read_answer(http.post(COMPLETIONS, json=asked)))
    same = by_ids == by_text
    specified(record_check, [] if same else [f"by ids {by_ids.text!r}, by text {by_text.text!r}"])


@check(29)
def test_prompt_list(server: Server, answers: Answers, record_check: RecordCheck) -> None:
    """A list of three prompts gives three choices, numbered in its order.

    Does not prove that they are not mixed up (see correctness). Would have caught choices in the
    order of their finishing.
    """
    answer = answers.whole(LIST)
    problems = shape_problems("completion", answer, model=server.model, choices=3)
    numbers = [choice["index"] for choice in answer["choices"]]
    if numbers != sorted(numbers):
        problems.append(f"choices come in the order {numbers}")
    specified(record_check, problems)


@check(38)
def test_echo(answers: Answers, record_check: RecordCheck) -> None:
    """echo gives the prompt back before what was generated, and counts it as no output.

    Does not prove its log-probabilities (see test_logprobs). Would have caught scoring of a prompt
    that the server had cut.
    """
    plain, echoed = said(answers.whole(BY_TEXT)), said(answers.whole(ECHOED))
    whole = PROMPT + plain.text
    problems = [] if echoed.text == whole else [f"says {echoed.text!r}, not {whole!r}"]
    specified(record_check, problems)


@check(30)
def test_seed(answers: Answers, record_check: RecordCheck) -> None:
    """At temperature 1 one seed gives one text, and four seeds give more than one.

    Does not prove it under load, where batches change the arithmetic. Would have caught a seed
    that is ignored, and a temperature that is.
    """
    first, again = (said(answers.whole(request)).text for request in SEEDED)
    problems = [] if again == first else [f"{first!r} and then {again!r}"]
    if {said(answers.whole(request)).text for request in OTHERS} == {first}:
        problems.append(f"four seeds all give {first!r}")
    specified(record_check, problems)


@check(30)
def test_seeds_of_long_prompts(
    server: Server,
    deployment: Deployment,
    answers: Answers,
    record_check: RecordCheck,
    max_model_len: int,
) -> None:
    """Requests with seeds whose prompts together are longer than a step, and so are read in parts,
    are all answered.

    Does not prove what they are answered. Would have caught vLLM 0.32 on CPU, where such a request
    ends the engine, as in vllm-rbln#1025; evaluation harnesses send seeds.
    """
    beyond_simulation(deployment)
    step = deployment.options.max_num_batched_tokens or STEP
    length = min(step * 3 // 4, max_model_len - 8)
    several = (2 * step // length + 1) * deployment.layout.data  # more than two steps an engine
    bodies = [
        completion(server.model, prompt=[7] * length, temperature=1, max_tokens=4, seed=seed)
        for seed in range(several)
    ]
    statuses = [answer.status_code for answer in answers.now([(COMPLETIONS, b) for b in bodies])]
    wrong = sorted({status for status in statuses if status != 200})
    specified(record_check, [f"HTTP {status}" for status in wrong])
