"""One matrix over the ranks of a ``torch.distributed`` process group, each with its own rows.

* `group`      the group, and its collectives
* `rows`       the rows of a rank, and what the ranks compute together
* `torch_ops`  the same as custom ops of torch
* `modules`    `RankEmbedding` and `RankLinear`
* `tying`      what ``tie(model, process_group=…)`` does

torch.distributed moves all bytes.  Requires torch.
"""
