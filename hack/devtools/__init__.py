"""What `hack/test`, `hack/demo` and `hack/bench` are made of; nothing here is part of the operator's image."""
