"""Manifests for pods: legal to Kubernetes, of the topology's hosts, and their command trains where it is started."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from launch.tpu.jobset import Job, jobset
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.tpu.topology import CHIPS, VM_CHIPS, Topology
from tests import tiny
from tests.commands import run
from tests.train.jobs import finish_job, start_job
from tests.train.test_resume import OVERRIDES

JOB = Job("train", "image", ["true"], Topology("v5p:4x4x8", 2), bucket="clips", queue="queue")


def closed(schema: Any) -> Any:
    """The schema with unknown fields as errors: Kubernetes drops them without a word."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {"additionalProperties": False} if "properties" in schema else {}
    return {key: closed(part) for key, part in schema.items()} | strict


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    published = json.loads((Path(__file__).parent / "jobset_schema.json").read_text())
    # The API server fills in the standard metadata, whose fields a CRD leaves open.
    published["properties"]["metadata"]["additionalProperties"] = True
    return jsonschema.Draft202012Validator(closed(published))


@pytest.mark.parametrize("job", [JOB, Job("small", "image", ["true"], Topology("v5e:2x2"))])
def test_a_manifest_follows_the_published_schema(schema, job):
    schema.validate(yaml.safe_load(yaml.safe_dump(jobset(job))))


def test_the_schema_would_find_a_misspelt_field(schema):
    manifest = jobset(JOB)
    manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["backOffLimit"] = 0
    with pytest.raises(jsonschema.ValidationError, match="backOffLimit"):
        schema.validate(manifest)


@pytest.mark.parametrize(
    ("name", "slices", "expected"), [("v5p:4x4x8", 2, 32), ("v5e:16x16", 1, 64), ("v6e:2x4", 1, 2), ("v4:2x2x1", 1, 1)]
)
def test_every_four_chips_have_a_pod(name, slices, expected):
    topology = Topology(name, slices)
    [slice_job] = jobset(Job("train", "image", ["true"], topology))["spec"]["replicatedJobs"]
    assert slice_job["replicas"] == slices and slice_job["template"]["spec"]["completions"] == expected
    assert topology.hosts * VM_CHIPS == topology.chips


def test_the_data_are_mounted_to_read_with_what_is_known_of_them_kept():
    template = jobset(JOB)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    [volume] = [volume for volume in template["spec"]["volumes"] if volume["name"] == "bucket"]
    options = volume["csi"]["volumeAttributes"]["mountOptions"].split(",")
    assert volume["csi"]["readOnly"] and {"ro", "metadata-cache:ttl-secs:-1"} <= set(options)
    for resource in ("cpu", "memory", "ephemeral-storage"):
        assert template["metadata"]["annotations"][f"gke-gcsfuse/{resource}-limit"] == "0"
    environment = {each["name"]: each["value"] for each in template["spec"]["containers"][0]["env"]}
    assert environment["JAX_COMPILATION_CACHE_DIR"] == "gs://clips/compiled"


def test_statuses_that_would_come_again_end_the_job():
    spec = jobset(JOB)["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2, 3, 4]


def test_machines_of_v5e_and_v6e_carry_two_hosts():
    assert {name: chip.machine_chips for name, chip in CHIPS.items()} == {"v4": 4, "v5e": 8, "v5p": 4, "v6e": 8}


def test_a_topology_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="v5p: 2x2x1, 2x2x2"):
        Topology("v5p:3x3x3")


@pytest.mark.slow
def test_the_command_of_a_manifest_trains_in_two_processes(tmp_path):
    tiny.latents(tmp_path / "latents")
    keys = OVERRIDES | {"data": tmp_path / "latents", "steps": 2, "mesh.fsdp": 2, "optimizer.name": "adamw"}
    config = ["--config=configs/dit.py:tiny", *(f"--config.{key}={value}" for key, value in keys.items())]
    flags = ["--topology=v5e:2x4", "--image=image", f"--out={tmp_path}/job.yaml"]
    job = run("launch.tpu.job", *config, *flags, "--workdir=gs://clips/run", "--bucket=clips")
    assert job.status == 0 and json.loads(job.out.splitlines()[-1])["processes"] == 2, job.err

    pod = yaml.safe_load((tmp_path / "job.yaml").read_text())["spec"]["replicatedJobs"][0]["template"]["spec"][
        "template"
    ]
    python, minus_m, *arguments, distributed = pod["spec"]["containers"][0]["command"]
    assert (python, minus_m, distributed) == ("python", "-m", "--distributed")
    arguments = [argument.replace("gs://clips/", f"{tmp_path}/") for argument in arguments]
    for status, _, err in finish_job(start_job(arguments, processes=2)):
        assert status == 0, err
    assert (tmp_path / "run" / "checkpoints" / "2").is_dir()


def test_a_study_has_a_job_for_each_cell(schema):
    flags = ["--topology=v5e:2x4", "--image=image", "--workdir=gs://clips/study", "--config.data=gs://clips/data"]
    done = run("launch.tpu.job", "--study=compression_quick", *flags)
    jobs = list(yaml.safe_load_all(done.out))
    assert [job["metadata"]["name"] for job in jobs] == [f"train-{i}" for i in range(4)], done.err
    for job, cell in zip(jobs, ("t4_s8_c16", "t4_s16_c32", "t8_s16_c64", "t8_s32_c128"), strict=True):
        schema.validate(job)
        [pod] = job["spec"]["replicatedJobs"]
        command = pod["template"]["spec"]["template"]["spec"]["containers"][0]["command"]
        assert command[2:5] == ["launch.ablate", "--out=gs://clips/study", f"--cell={cell}-plain-seed0"]
        assert command[-2:] == ["--config.data=gs://clips/data", "--distributed"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--cell=t4_s8_c16-plain-seed0"], "name that with --study"),
        (["--config=ablate:compression_quick"], "name them with --config.data=gs://BUCKET/PATH"),
        (["--config=ablate:compression_quick", "--config.data=gs://a", "--cell=x"], "has no cell 'x'"),
        (["--config=ablate:pruning", "--config.data=gs://a"], "cells of this study share networks"),
        (["--config.mesh.fsdp=3"], "does not divide 8 device"),
        (["--config.batch_size=12"], "use a multiple of 8"),
        (["--name=My_Job"], "small letters"),
        (["--topology=v5e:3x3"], "topology 'v5e:3x3' is unknown"),
        (["--workdir=/shared/run"], "--workdir=/shared/run is lost with its pod, or mounted to read only: use gs://"),
        (["--workdir=runs/x"], "--workdir=runs/x is lost with its pod"),
        (["--workdir=gs://"], "--workdir=gs:// is lost with its pod"),
    ],
)
def test_a_job_that_could_not_run_is_one_line(changes, message):
    flags = ["--config=configs/dit.py:tiny", "--topology=v5e:2x4", "--image=image", "--workdir=gs://clips/run"]
    job = run("launch.tpu.job", *flags, "--bucket=clips", *changes)
    [line] = [line for line in job.err.splitlines() if line.startswith("error: ")]
    assert job.status == 2 and job.out == "" and message in line
