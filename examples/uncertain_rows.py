"""Which eruptions of Old Faithful are hard to tell apart? Clusters, and how sure to be of them."""

import bayesgmm as bg

# 272 eruptions: how long each took and how long the wait for the next one was, in minutes.
X = bg.datasets.old_faithful()

# The two clusters that fit best ...
fit = bg.fit_em(X, n_components=2, rng=0)
print(f"EM {fit.status.value}.\nBIC {fit.bic:.1f} (smaller is better).\n")

# ... and all those that the table leaves plausible: draws from the posterior.
tree = bg.sample_posterior(X, fit, rng=0)
print(f"{tree.attrs['convergence']}\n")

# The estimate of each parameter beside its posterior: a shift near 0 says that the two agree.
columns = ["component", "feature", "em", "mean", "sd", "lower", "upper", "shift"]
means = bg.parameter_table(tree).query("parameter == 'means'")
print(f"Cluster means, in minutes, with 89% intervals\n{means[columns].round(2).to_string(index=False)}\n")

# How sure each row is to belong to component 1, the long eruptions, and what the doubt comes from.
rows = bg.assign(tree)
table = X.assign(
    p_long=rows.probabilities[:, 1],
    lower=rows.lower[:, 1],
    upper=rows.upper[:, 1],
    doubt=rows.entropy,  # in nats; a coin toss has 0.69
    from_parameters=rows.mutual_information,  # the part that more rows would remove
)
print(f"The least certain rows, with 89% intervals\n{table.nlargest(5, 'doubt').round(2)}\n")

# A row that was never seen is assigned in the same way.
new = bg.assign(tree, [[3.0, 65.0]])
p, lower, upper = new.probabilities[0, 1], new.lower[0, 1], new.upper[0, 1]
print(f"An eruption of 3 minutes and a wait of 65: long with probability {p:.2f} [{lower:.2f}, {upper:.2f}].")
