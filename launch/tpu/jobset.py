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
ACCELERATORS = {
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
}


@dataclasses.dataclass(frozen=True)
class Job:
    """A job: what runs, where, and the storage bucket that every pod sees as /shared (none if empty)."""

    name: str
    image: str
    command: Sequence[str]
    topology: Topology
    bucket: str = ""
    service_account: str = "default"
    queue: str = ""
    restarts: int = 100


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
    mounts = [{"name": "memory", "mountPath": "/dev/shm"}]
    mounts += [{"name": "bucket", "mountPath": SHARED}] if job.bucket else []
    return {
        "name": "main",
        "image": job.image,
        "command": list(job.command),
        "env": [{"name": "JAX_COMPILATION_CACHE_DIR", "value": f"{SHARED}/compiled"}] if job.bucket else [],
        "securityContext": {"privileged": True},
        "resources": {"limits": {"google.com/tpu": VM_CHIPS}},
        "volumeMounts": mounts,
    }


def _mount_annotations(job: Job) -> dict[str, str]:
    return {"gke-gcsfuse/volumes": "true"} if job.bucket else {}


def _bucket_volumes(job: Job) -> list[dict[str, Any]]:
    if not job.bucket:
        return []
    attributes = {"bucketName": job.bucket, "mountOptions": "implicit-dirs", "hostNetworkPodKSA": "true"}
    return [{"name": "bucket", "csi": {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}}]
