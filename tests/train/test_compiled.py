"""Two processes, gradients in several buckets: every compiled block stays one graph.

The graphs that torch gives its compiler are counted, so none need be compiled.
"""

import json
import sys
from pathlib import Path

import pytest
import yaml
from ranks import launch

# 3 blocks of 2.6 MB in buckets of 1 MB; a share of 8 images in microbatches of 4.
CHANGES = {
    "train": {
        "images": 48, "batch": 16, "microbatch": 4, "compile": True, "parallel": "ddp",
        "snapshots": 1, "first_snapshot": 48, "warmup_images": 0,
    },
    "ladder": [{"name": "d3", "depth": 3, "width": 192}],
}  # fmt: skip


def measure(config, data, state, cut):
    """What the compiler was given in this process; `cut`: with torch's own default."""
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from jstar.config import Study
    from jstar.train import parallel
    from jstar.train.loop import run_chunk
    from jstar.train.run import Run

    graphs, compile_module = [], torch.nn.Module.compile

    def backend(graph, inputs):
        graphs.append(sum(node.op == "call_function" for node in graph.graph.nodes))
        return graph.forward

    class SmallBuckets(DistributedDataParallel):
        def __init__(self, *args, **options):
            super().__init__(*args, bucket_cap_mb=1, **options)

    parallel.DistributedDataParallel = SmallBuckets
    torch.nn.Module.compile = lambda self, **options: compile_module(
        self, backend=backend, **options
    )
    with parallel.join_ranks("cpu") as ranks:
        run = Run(Study.parse(yaml.safe_load(config)), "d3", 0, Path(data), Path(state), ranks)
        torch._dynamo.config.optimize_ddp |= cut
        run_chunk(run, 3)  # DDP puts all into one bucket at first, and cuts after a step
        buckets = run.objective._get_ddp_logging_data()["rebuilt_bucket_sizes"].split(",")
    counted = torch._dynamo.utils.counters
    Path(state, f"{ranks.rank}.json").write_text(json.dumps({
        "graphs": len(graphs), "operations": sum(graphs), "buckets": len(buckets),
        "breaks": sum(counted["graph_break"].values()), "kept": len(parallel._LEFT),
    }))  # fmt: skip


@pytest.mark.parametrize("cut", [False, True], ids=["as trained", "torch's default"])
def test_every_block_is_one_graph(cut, tiny_study, digits, tmp_path):
    launch(__file__, tiny_study(**CHANGES), digits, tmp_path, 2, ["cut" if cut else ""])
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1]
    assert found[0]["buckets"] > 3
    assert found[0]["breaks"] == 0
    assert found[0]["kept"] == 1  # else it hangs at its end, once in a hundred under load
    # The three blocks are of one code and shape: one graph serves them all.
    assert (found[0]["graphs"] == 1) == (not cut)


if __name__ == "__main__":
    measure(*sys.argv[1:4], bool(sys.argv[4]))
