"""ROS messages without ROS: definitions, one typestore, conversions, image decoding."""
