"""Programs in images as typed functions: engines that run programs, the copilot that stages inputs and collects
outputs, and the life of an attempt."""
