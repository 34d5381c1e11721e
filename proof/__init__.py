"""Models of perdure's protocol, and a checker that explores the models completely. See README.md."""
