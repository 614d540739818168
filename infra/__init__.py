"""What the method runs on: object store, dataset versions, Ray."""
