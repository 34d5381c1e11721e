"""Containers as pods of a Kubernetes cluster.

A pod has the user's image as its container `main`, unchanged. In front of it the copilot, an init container, brings the
inputs from the bucket; beside it the copilot, a native sidecar, waits for its end and takes the outputs there.

    where        what `kubernetes://...` says
    template     what a user wants a pod to have besides
    spec         a pod's specification
    status       what a pod's status says of the attempt
    tree         directories as objects in a bucket, both ways
    cluster      the API server
    life         one attempt, which any process can enter at any point
    service      the cluster as this process uses it
"""
