"""Who speaks, and to whom: read from the arguments of `tidewatch.init`, else from the environment."""

from __future__ import annotations

import os
import re
import socket
import sys
from dataclasses import dataclass
from typing import Mapping, Optional

from ._rows import text

DEFAULT_URL = "http://127.0.0.1:7575"

# Slurm comes first: the tables `gpu` and `process` name a job by SLURM_JOB_ID, and rules join on it.
JOB_VARIABLES = ("TIDEWATCH_JOB", "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "TORCHELASTIC_RUN_ID")
RANK_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")

# The five letters that Kubernetes appends to a generated name: no vowels, no 0, 1 and 3
# (apimachinery, pkg/util/rand).
_RANDOM = "-[bcdfghjklmnpqrstvwxz2456789]{5}"
_POD_SUFFIX = re.compile(rf"(-(master|worker|launcher|chief|ps)-\d+|{_RANDOM})$")


@dataclass
class Context:
    """What is the same in every row of this process, and where the rows go."""

    url: str
    token: Optional[str]
    job: str
    rank: Optional[int]  # None: nobody said; rows then carry 0
    host: str
    disabled: bool


def job_name(environment: Mapping[str, str]) -> str:
    """The job's name: a scheduler's id, else the name of the Kubernetes pod without its own part, else the script."""
    for variable in JOB_VARIABLES:
        value = environment.get(variable)
        # torchrun says "none" when it was started without --rdzv-id.
        if value and not (variable == "TORCHELASTIC_RUN_ID" and value == "none"):
            return value
    script = os.path.splitext(os.path.basename(sys.argv[0] if sys.argv else ""))[0]
    return pod_job(environment) or ("python" if script[:1] in ("", "-") else script)  # python -c has no script


def pod_job(environment: Mapping[str, str]) -> Optional[str]:
    """The pod's name without what tells the pods of one job apart; None outside Kubernetes."""
    pod = environment.get("POD_NAME") or environment.get("HOSTNAME")
    if not pod or "KUBERNETES_SERVICE_HOST" not in environment:
        return None
    index = environment.get("JOB_COMPLETION_INDEX")
    suffix = re.compile(rf"-{re.escape(index)}({_RANDOM})?$") if index else _POD_SUFFIX
    return suffix.sub("", pod) or pod


def rank_number(environment: Mapping[str, str]) -> Optional[int]:
    """The process's number among those of the job, from 0; None when no launcher says."""
    values = (environment.get(variable, "") for variable in RANK_VARIABLES)
    return next((int(value) for value in values if value.isascii() and value.isdigit()), None)


def read_context(
    environment: Mapping[str, str],
    url: Optional[str] = None,
    token: Optional[str] = None,
    job: Optional[str] = None,
    rank: Optional[int] = None,
    host: Optional[str] = None,
    disabled: Optional[bool] = None,
) -> Context:
    """What was given wins over the environment, and the environment over the default."""
    switch = environment.get("TIDEWATCH_DISABLED", "").strip().lower()
    return Context(
        url=url or environment.get("TIDEWATCH_URL") or DEFAULT_URL,
        token=token or environment.get("TIDEWATCH_TOKEN") or None,
        job=text(job or job_name(environment)),
        rank=rank_number(environment) if rank is None else rank,
        host=text(host or socket.gethostname()),
        disabled=switch not in ("", "0", "false", "no") if disabled is None else disabled,
    )
