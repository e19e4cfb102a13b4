"""How DeepSeek-R1/V3 on vLLM is accepted: typed stages that know nothing of pytest.

Data moves one way: deployment, command, running server, measurements, validity, judgement.
"""
