"""Who is measured: everything becomes one frozen `Classifier`."""
