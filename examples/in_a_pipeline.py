"""Clusters in a scikit-learn pipeline: a search over models, then how sure the probabilities are."""

from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import bayesgmm as bg
from bayesgmm.sklearn import GaussianMixture, GaussianMixturePosterior

# 272 eruptions of Old Faithful: how long each took and how long the wait for the next one was, in minutes.
X = bg.datasets.old_faithful()

# Which model predicts rows best that it has not seen? GaussianMixture takes the place of scikit-learn's class.
pipeline = make_pipeline(StandardScaler(), GaussianMixture(random_state=0))
grid = {
    "gaussianmixture__n_components": [1, 2, 3],
    "gaussianmixture__covariance_type": ["full", "tied", "VEE"],  # one of mclust's models among scikit-learn's
}
search = GridSearchCV(pipeline, grid, cv=KFold(5, shuffle=True, random_state=0)).fit(X)
for name, value in search.best_params_.items():
    print(f"{name.removeprefix('gaussianmixture__')} = {value}")
print(f"log density of a held-out row: {search.best_score_:.3f} nats\n")

# The fit behind the estimator knows every start and every maximum that was found.
print(search.best_estimator_[-1].em_, "\n")

# The same clusters with the posterior's uncertainty: intervals of each probability.
model = GaussianMixturePosterior(n_components=2, random_state=0).fit(X)
new = X.iloc[[0, 23, 243]]
p, (lower, upper) = model.predict_proba(new), model.predict_interval(new)
print(new.assign(p_long=p[:, 1], lower=lower[:, 1], upper=upper[:, 1]).round(3).to_string())
