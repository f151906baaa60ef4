# SimKD with a connector of one 1x1 convolution.
_base_ = "./resnet8x4_resnet32x4-simkd_1xb64_cifar100.py"

model = dict(head=dict(connector=dict(type="mmkd.ConvConnector", layout="1x1")))
