"""dromon's workers as a backend of joblib, and so of scikit-learn::

    import dromon.joblib
    from joblib import parallel_config

    dromon.joblib.register()
    with parallel_config("dromon", n_jobs=4):
        forest.fit(X, y)

It needs joblib, which dromon itself does not.
"""

from ._joblib import register as register
