"""The posterior of a Gaussian mixture: priors, the PyMC model, its density, sampling and relabelling."""
