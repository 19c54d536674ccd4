"""A support vector machine on the handwritten digits, as a task for Ridgeline."""

from ridgeline import Domain, FunctionTask


def objective(params, report):
    """A support vector machine on the handwritten digits: the accuracy on a quarter of them."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.svm import SVC

    x, y = load_digits(return_X_y=True)
    x_train, x_valid, y_train, y_valid = train_test_split(x, y, test_size=0.25, random_state=0)
    model = SVC(C=params["c"], gamma=params["gamma"])
    for step, rows in enumerate((200, 500, len(x_train)), start=1):
        accuracy = model.fit(x_train[:rows], y_train[:rows]).score(x_valid, y_valid)
        report(step, accuracy)
    return accuracy


task = FunctionTask(
    "own-objective",
    objective,
    parameters={
        "c": Domain("float", "how much an error costs", low=0, open_low=True, high=1e6),
        "gamma": Domain("float", "how near a point has to be", low=0, open_low=True, high=1e3),
    },
    defaults={"c": 1.0},
    metric="accuracy",
    direction="maximize",
    max_seconds=600,
)
