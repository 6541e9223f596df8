"""The GPU backend: launches the kernels of ``ccx/kernels/src``, a module for each family in `ccx.kernels.backend`."""
