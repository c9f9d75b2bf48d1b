"""The ways to get work done that are compared: dromon's, its peers', and what bounds them all."""
