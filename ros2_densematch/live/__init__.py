"""The matcher node: a core without ROS, and the rclpy part (`ros_node`), which is the only one to import rclpy."""
