"""Networks: the field's 2D U-Net, its EMA teacher, and the pixel representation head."""
