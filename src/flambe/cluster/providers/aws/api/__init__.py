"""What flambe asks of AWS: typed requests and answers, with boto3 behind them."""
