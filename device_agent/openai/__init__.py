"""What clients of OpenAI's API may ask of the agent: final text alone, in the shapes that they know."""
