"""Names the suite's pytest plugins; nothing else."""

from fixtures import PLUGINS

pytest_plugins = PLUGINS
