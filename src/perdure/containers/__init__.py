"""Programs in images as typed functions: engines that run them, the copilot that hands them their inputs and collects
their outputs, and the life of one attempt."""
