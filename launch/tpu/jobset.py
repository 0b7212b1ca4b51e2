"""A JobSet (jobset.sigs.k8s.io): Kubernetes' form of a job on one or several TPU slices, which GKE and XPK run.

Fields as in XPK's workload template and the multi-slice example in JobSet's own documentation (both read in 2026).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mobile_video_jax.core.errors import BAD_INPUT, DIVERGED, STUCK
from mobile_video_jax.cost.tpu.topology import VM_CHIPS, Topology

SHARED = "/shared"
GRACE_SECONDS = 600  # from SIGTERM to SIGKILL: time to save
FINAL = [BAD_INPUT, DIVERGED, STUCK]  # statuses on which the job fails for good: another start ends the same way
# The data are mounted to read only, and what is known of them is kept for good: MaxText's options, with which its
# reading took a thirtieth of the time (its pull request 1070). Runs are written straight to gs://.
MOUNT_OPTIONS = (
    "ro",
    "implicit-dirs",
    "metadata-cache:ttl-secs:-1",
    "metadata-cache:stat-cache-max-size-mb:-1",
    "metadata-cache:type-cache-max-size-mb:-1",
    "file-system:kernel-list-cache-ttl-secs:-1",
)
ACCELERATORS = {
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
}


@dataclasses.dataclass(frozen=True)
class Job:
    """A job: what runs, where, and the storage bucket that every pod reads as /shared (none if empty)."""

    name: str
    image: str
    command: Sequence[str]
    topology: Topology
    bucket: str = ""
    service_account: str = "default"
    queue: str = ""
    restarts: int = 100
    compiler_flags: str = ""  # for every program of a pod


def jobset(job: Job) -> dict[str, Any]:
    """The manifest: one Job a slice, one pod a host, all started again when one is lost.

    A pod that leaves with a status of FINAL ends the job for good.
    """
    slices = {
        "name": "slice",
        "replicas": job.topology.slices,
        "template": {
            "spec": {
                "parallelism": job.topology.hosts,
                "completions": job.topology.hosts,
                "backoffLimit": 0,
                "podFailurePolicy": {
                    "rules": [
                        {
                            "action": "FailJob",
                            "onExitCodes": {"containerName": "main", "operator": "In", "values": FINAL},
                        }
                    ]
                },
                "template": {"metadata": {"annotations": _mount_annotations(job)}, "spec": _pod(job)},
            }
        },
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": job.name,
            "labels": {"kueue.x-k8s.io/queue-name": job.queue} if job.queue else {},
            # One slice to one node pool: its links are within that.
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {
                "maxRestarts": job.restarts,
                "rules": [{"name": "final", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
            },
            "replicatedJobs": [slices],
        },
    }


def _pod(job: Job) -> dict[str, Any]:
    generation, _, shape = job.topology.name.partition(":")
    return {
        "restartPolicy": "Never",
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "serviceAccountName": job.service_account,
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": ACCELERATORS[generation],
            "cloud.google.com/gke-tpu-topology": shape,
        },
        "tolerations": [{"key": "google.com/tpu", "operator": "Exists"}],
        "containers": [_container(job)],
        "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory"}}, *_bucket_volumes(job)],
    }


def _container(job: Job) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = [{"name": "memory", "mountPath": "/dev/shm"}]
    mounts += [{"name": "bucket", "mountPath": SHARED, "readOnly": True}] if job.bucket else []
    return {
        "name": "main",
        "image": job.image,
        "command": list(job.command),
        "env": _environment(job),
        "securityContext": {"privileged": True},
        "resources": {"limits": {"google.com/tpu": VM_CHIPS}},
        "volumeMounts": mounts,
    }


def _environment(job: Job) -> list[dict[str, str]]:
    values = {"LIBTPU_INIT_ARGS": job.compiler_flags, "JAX_COMPILATION_CACHE_DIR": f"gs://{job.bucket}/compiled"}
    if not job.bucket:
        values.pop("JAX_COMPILATION_CACHE_DIR")
    return [{"name": name, "value": value} for name, value in values.items() if value]


def _mount_annotations(job: Job) -> dict[str, str]:
    """The mount's sidecar without limits: by default it has a quarter of a core and 256 MiB."""
    limits = {f"gke-gcsfuse/{resource}-limit": "0" for resource in ("cpu", "memory", "ephemeral-storage")}
    return {"gke-gcsfuse/volumes": "true", **limits} if job.bucket else {}


def _bucket_volumes(job: Job) -> list[dict[str, Any]]:
    if not job.bucket:
        return []
    attributes = {
        "bucketName": job.bucket,
        "mountOptions": ",".join(MOUNT_OPTIONS),
        "gcsfuseMetadataPrefetchOnMount": "true",
        "hostNetworkPodKSA": "true",
    }
    driver = {"driver": "gcsfuse.csi.storage.gke.io", "readOnly": True, "volumeAttributes": attributes}
    return [{"name": "bucket", "csi": driver}]
