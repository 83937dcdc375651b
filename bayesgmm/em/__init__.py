"""Maximum-likelihood and MAP fits by expectation-maximisation."""
