"""Two modules of torch as tasks for Ridgeline."""

from ridgeline import Domain, ModuleTask

residual = ModuleTask(
    "own-residual",
    "own_task.networks:Residual",
    description="A residual network of fully connected layers.",
    features="vector",
    settings={
        "width": Domain("int", "units of each block", low=1, high=4096),
        "blocks": Domain("int", "how many blocks there are", low=0, high=64),
    },
    defaults={"width": 64, "blocks": 2},
)

cnn = ModuleTask(
    "own-cnn",
    "own_task.networks:SmallCnn",
    description="Two convolutions with batch norm, then a linear layer.",
    features="image",
    targets=("classes",),
    settings={"channels": Domain("int", "of the first convolution", low=1, high=1024)},
    defaults={"channels": 16},
)
