"""What CNNGeometric and weak alignment share: the network, and the matcher around it."""
