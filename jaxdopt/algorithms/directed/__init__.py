"""Methods for directed graphs: push-sum and push-pull."""
