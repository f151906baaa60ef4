# A wide ResNet in CRD's setting, where its classifier begins with torch's own weights, U(-b, b) of
# b = fan_in^(-1/2), and with biases of 0.
_base_ = "./cifar100_crd_240e.py"

model = dict(
    head=dict(
        init_cfg=dict(
            _delete_=True,
            type="Kaiming",
            layer="Linear",
            a=5**0.5,
            mode="fan_in",
            nonlinearity="leaky_relu",
            distribution="uniform",
            bias=0,
        )
    )
)
