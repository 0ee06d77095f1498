import json
import re
import subprocess

import pytest

from keras_opt.core.errors import InputError
from keras_opt.distribute import cluster
from keras_opt.distribute.cluster import Cluster, expand_counts, expand_hosts, find_cluster


def tf_config(cluster, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def slurm(**changes):
    variables = {
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_PROCID": "2",
        "SLURM_STEP_NODELIST": "node[07-08]",
        "SLURM_STEP_TASKS_PER_NODE": "2,1",
        "SLURM_JOB_ID": "40005",
    }
    return variables | changes


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": " "}, {"TF_CONFIG": "{}"}, {"SLURM_PROCID": "0"}])
def test_no_variables_name_no_cluster(environment):
    assert find_cluster(environment) is None


def test_one_task_of_slurm_is_no_cluster():
    assert find_cluster(slurm(SLURM_STEP_NUM_TASKS="1")) is None


def test_a_batch_script_outside_of_srun_is_no_cluster():
    assert find_cluster({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}) is None


def test_tf_config_names_the_workers():
    found = find_cluster(tf_config({"worker": ["a:1", "b:2"]}, index=1))
    assert found == Cluster(("a:1", "b:2"), 1, "TF_CONFIG")
    assert not found.is_chief


@pytest.mark.parametrize(("kind", "index", "expected"), [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)])
def test_the_chief_comes_first(kind, index, expected):
    found = find_cluster(tf_config({"worker": ["a:1", "b:2"], "chief": ["c:3"]}, kind, index))
    assert found.workers == ("c:3", "a:1", "b:2")
    assert (found.index, found.is_chief) == (expected, expected == 0)


@pytest.mark.parametrize(
    ("environment", "fault"),
    [
        ({"TF_CONFIG": "{worker}"}, "it is no JSON"),
        ({"TF_CONFIG": "[1]"}, "no JSON object"),
        ({"TF_CONFIG": '{"cluster": ["a:1"]}'}, "must be JSON objects"),
        (tf_config({"worker": ["a:1"], "ps": ["b:1"]}), "jobs of type 'ps'"),
        (tf_config({"worker": ["a:1"], "chief": ["b:1", "c:1"]}), "more than one chief"),
        (tf_config({"worker": ["a:1", "a:1"]}), "stands twice"),
        (tf_config({"worker": "a:1"}), "no list of addresses"),
        (tf_config({"worker": ["a"]}), "'a' is no address"),
        (tf_config({"worker": ["a:1"]}, index=1), "none of its cluster"),
        (tf_config({"worker": ["a:1"]}, index=True), "none of its cluster"),
        (tf_config({"worker": ["a:1"]}, kind="chief"), "none of its cluster"),
        (slurm(SLURM_STEP_TASKS_PER_NODE="2"), "do not agree"),
        (slurm(SLURM_STEP_TASKS_PER_NODE="2(x2)"), "do not agree"),
        (slurm(SLURM_PROCID="3"), "do not agree"),
        (slurm(SLURM_PROCID="two"), "are no numbers"),
        (slurm(SLURMD_NODENAME="node07"), "task 2 runs on node07, where tasks in blocks would put node08"),
    ],
)
def test_what_contradicts_itself_is_refused(environment, fault):
    with pytest.raises(InputError, match=fault):
        find_cluster(environment)


def test_slurms_variables_name_the_workers():
    found = find_cluster(slurm(SLURMD_NODENAME="node08"))
    assert found == Cluster(("node07:14560", "node07:14561", "node08:14560"), 2, "SLURM")


def test_jobs_and_steps_that_share_a_node_have_ports_of_their_own():
    eight = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NODELIST": "a", "SLURM_STEP_TASKS_PER_NODE": "8"}
    ports = [
        worker
        for job in range(40_000, 40_030)
        for step in range(16)
        for worker in find_cluster(slurm(**eight, SLURM_JOB_ID=str(job), SLURM_STEP_ID=str(step))).workers
    ]
    assert len(set(ports)) == 30 * 16 * 8
    assert {12_000 <= int(address.partition(":")[2]) < 32_000 for address in ports} == {True}


def test_tf_config_goes_before_slurm():
    assert find_cluster(slurm() | tf_config({"worker": ["a:1"]})).source == "TF_CONFIG"


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("a", ["a"]),
        ("a1,b-2", ["a1", "b-2"]),
        ("a[1-3]", ["a1", "a2", "a3"]),
        ("a[08-10,12],b", ["a08", "a09", "a10", "a12", "b"]),
        ("r[1-2]n[1-2].x", ["r1n1.x", "r1n2.x", "r2n1.x", "r2n2.x"]),
        ("", []),
    ],
)
def test_lists_of_hosts_are_expanded(text, hosts):
    assert expand_hosts(text) == hosts


@pytest.mark.parametrize(("text", "counts"), [("4", [4]), ("2(x3),1", [2, 2, 2, 1]), ("", [])])
def test_lists_of_counts_are_expanded(text, counts):
    assert expand_counts(text) == counts


# --- what the documentation shows -------------------------------------------------------------------------------------


def shown(first):
    """The indented block of the module's docstring that begins with `first`."""
    blocks = re.findall(r"(?:^    .*\n)+", cluster.__doc__, re.MULTILINE)
    (block,) = [block for block in blocks if block.strip().startswith(first)]
    return re.sub("^    ", "", block, flags=re.MULTILINE)


def test_the_tf_config_that_is_shown_names_two_workers():
    assignment, start = shown("export TF_CONFIG").splitlines()
    said = subprocess.run(["bash", "-c", f'{assignment}; printf %s "$TF_CONFIG"'], capture_output=True, check=True)
    found = find_cluster({"TF_CONFIG": said.stdout.decode()})
    assert found == Cluster(("node1:12345", "node2:12345"), 0, "TF_CONFIG")
    assert start == "python train.py"


def test_the_batch_file_that_is_shown_gives_each_node_a_worker(tmp_path):
    text = shown("#!/bin/bash")
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\d+)$", text, re.MULTILINE))
    assert set(options) == {"nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task"}
    (tmp_path / "srun").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_CPUS_PER_TASK": options["cpus-per-task"]}
    said = subprocess.run(["bash", "-c", text], env=variables, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [
        "--distribution=block", "--cpus-per-task=16", "--kill-on-bad-exit=1", "python", "train.py"
    ]  # fmt: skip
    nodes, tasks = int(options["nodes"]), int(options["ntasks-per-node"])
    for index in range(nodes * tasks):
        found = find_cluster(
            {
                "SLURM_JOB_ID": "40005",
                "SLURM_STEP_NUM_TASKS": str(nodes * tasks),
                "SLURM_STEP_NODELIST": f"node[1-{nodes}]",
                "SLURM_STEP_TASKS_PER_NODE": f"{tasks}(x{nodes})",
                "SLURM_PROCID": str(index),
                "SLURMD_NODENAME": f"node{1 + index // tasks}",
            }
        )
        assert (found.workers, found.index) == (("node1:14560", "node2:14560"), index)
