"""Room of the machines: the processes of a training job, and the GPUs each may use."""
