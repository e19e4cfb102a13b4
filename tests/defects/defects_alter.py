"""The alterations, by name: each does to a healthy server's traffic what one defect does."""

from __future__ import annotations

import defects_alter_access
import defects_alter_form
import defects_alter_tokens
from defects_altering import ALTERATIONS

__all__ = ["ALTERATIONS", "defects_alter_access", "defects_alter_form", "defects_alter_tokens"]
