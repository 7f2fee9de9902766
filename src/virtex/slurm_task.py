"""The former path of `virtex.experiments.slurm_task`, by which queued SLURM jobs were pickled."""

from virtex.experiments.slurm_task import PretrainTask as PretrainTask
