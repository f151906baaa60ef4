"""What tests share: toys of each trainer, scenes of boxes, inputs of reports."""
