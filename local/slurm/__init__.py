"""The stages, and detection, as jobs of Slurm.

- `request`: what a command line asks for; `conf`: what each stage asks of the cluster; `site`: what
  the cluster has; `probe`: whether its nodes see the folders
- `job_graph`: the stages as jobs, one after the other; `submitting`: their scripts, handed in;
  `launch`: all of that from a command line
- `node_task`: one task on its node; `sent_jobs`: what is kept of them; `status`: how they stand
- `forecast`: how long a large corpus takes, worked out beforehand
"""
