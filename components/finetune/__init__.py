"""Stage two: anatomical contrastive fine-tuning."""
