"""From results to what people read: Markdown tables, plots, and the targets."""
