"""Containers as pods of a Kubernetes cluster.

A pod runs the user's unchanged image as the container `main`. Before `main`, the copilot, an init container, brings the
inputs from the bucket. Beside `main`, the copilot, a native sidecar, waits for the end and takes the outputs to the
bucket.

    where        the URL `kubernetes://...`
    template     a user's additions to a pod
    spec         a pod's specification
    status       the state of an attempt in a pod's status
    tree         directories as objects in a bucket, both ways
    cluster      the API server
    life         one attempt, which any process can enter at any point
    service      the cluster as this process uses the cluster
"""
