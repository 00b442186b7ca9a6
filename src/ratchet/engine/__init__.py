"""The built-in CPU engine: a program of its own that serves one version over the OpenAI HTTP API.

With `train`, the only home of torch.  It knows weights and an object store, and nothing of the
control plane.
"""
