# Lines of metald's operations guide, as printed there, in the order in which the scenario vm-guide runs them. A line that
# begins with "#: " names the part that follows it. What is needed around a line is in mod.rs and lab.rs; what is not run, and why
# not, is in docs/layers/vm.md, "Every line of the guide".

#: install
sudo make install

#: environment
# Edit environment file
sudo cp contrib/systemd/metald.env.example /etc/metald/metald.env
sudo chmod 600 /etc/metald/metald.env
sudo vim /etc/metald/metald.env

#: storage
# Create required directories
sudo mkdir -p /srv/jailer
sudo mkdir -p /opt/metald/assets
sudo mkdir -p /var/lib/metald
sudo mkdir -p /var/log/metald

# Set permissions
sudo chown -R metald:metald /opt/metald
sudo chown -R metald:metald /var/lib/metald
sudo chown -R metald:metald /var/log/metald
sudo chown root:root /srv/jailer
sudo chmod 755 /srv/jailer

#: networking
# Create bridge for VM networking (if needed)
sudo ip link add br0 type bridge
sudo ip addr add 192.168.100.1/24 dev br0
sudo ip link set br0 up

# Enable IP forwarding
sudo sysctl -w net.ipv4.ip_forward=1
sudo sysctl -w net.ipv6.conf.all.forwarding=1

# Configure firewall (example for iptables)
sudo iptables -t nat -A POSTROUTING -s 192.168.100.0/24 -j MASQUERADE
sudo iptables -A FORWARD -i br0 -j ACCEPT
sudo iptables -A FORWARD -o br0 -j ACCEPT

#: start
# Enable and start metald
sudo systemctl enable metald
sudo systemctl start metald

#: status
# Check status
sudo systemctl status metald

#: follow
sudo journalctl -u metald -f

#: health-check
#!/bin/bash
# health-check.sh

# Check service status
if ! systemctl is-active --quiet metald; then
  echo "CRITICAL: Metald service not running"
  exit 2
fi

# Check API health
if ! curl -sf http://localhost:8080/health > /dev/null; then
  echo "CRITICAL: Metald API not responding"
  exit 2
fi

# Check backend health
health=$(curl -s http://localhost:8080/health | jq -r .backend.status)
if [ "$health" != "healthy" ]; then
  echo "WARNING: Backend unhealthy"
  exit 1
fi

echo "OK: Metald healthy"
exit 0

#: create
# Test VM creation
curl -X POST http://localhost:8080/v1/vms \
  -H "Authorization: Bearer dev_customer_test" \
  -H "Content-Type: application/json" \
  -d '{"config": {"cpu": {"vcpu_count": 1}, "memory": {"size_bytes": 134217728}}}'

#: overall-health
# Check overall health
curl -s http://localhost:8080/health | jq .

#: metrics
# Verify metrics
curl -s http://localhost:8080/metrics | grep ^unkey_metald

#: service-does-not-start
# Check logs
sudo journalctl -u metald -n 100 --no-pager

# Verify capabilities
getcap /usr/local/bin/metald

# Check file permissions
ls -la /srv/jailer /opt/metald /var/lib/metald

#: creation-fails
# Check system resources
free -h
df -h /srv/jailer

# Verify network setup
ip link show
ip netns list

# Check for capability issues
sudo -u metald /usr/local/bin/metald --help

sysctl user.max_net_namespaces

#: jailer-errors
# Look for jailer errors
sudo journalctl -u metald | grep -i jailer

#: taps
# Check TAP devices
ip link show | grep tap

#: namespace
# Verify namespace networking
ip netns exec ns_vm_xxxxx ip addr

#: rules
# Check iptables rules
sudo iptables -L -n -v
sudo iptables -t nat -L -n -v

# Test bridge connectivity
ping -c1 192.168.100.1

#: memory
# Check process memory
ps aux | grep metald
pmap -x $(pidof metald)

# Check for goroutine leaks
curl -s http://localhost:8080/debug/pprof/goroutine

#: permissions
# Check file permissions
find /opt/metald -type f -perm /o+w -ls
find /srv/jailer -type d -perm /o+w -ls

#: maintenance-enable
# Stop writes (optional for consistency)
curl -X POST http://localhost:8080/admin/maintenance/enable

#: backup
# Backup SQLite database
sudo -u metald sqlite3 /var/lib/metald/metald.db ".backup /backup/metald-$(date +%Y%m%d).db"

#: maintenance-disable
# Resume writes
curl -X POST http://localhost:8080/admin/maintenance/disable

#: configuration-backup
# Backup all configuration
sudo tar -czf /backup/metald-config-$(date +%Y%m%d).tar.gz \
  /etc/metald/ \
  /etc/systemd/system/metald.service \
  /etc/systemd/system/metald.service.d/

#: export
# Export running VM list
curl -H "Authorization: Bearer $TOKEN" \
  http://localhost:8080/v1/vms > /backup/vms-$(date +%Y%m%d).json

#: restore
# Stop service
sudo systemctl stop metald

# Restore database
sudo -u metald cp /backup/metald-20240118.db /var/lib/metald/metald.db

# Restore configuration
sudo tar -xzf /backup/metald-config-20240118.tar.gz -C /

# Start service
sudo systemctl start metald

#: recreate
# Parse backed up VM list and recreate
jq -r '.vms[] | @json' /backup/vms-20240118.json | while read vm; do
  echo "$vm" | jq -r '.config' | \
    curl -X POST http://localhost:8080/v1/vms \
      -H "Authorization: Bearer $TOKEN" \
      -H "Content-Type: application/json" \
      -d @-
done

#: dump
# Generate goroutine dump
kill -QUIT $(pidof metald)

#: force-restart
# Force restart
sudo systemctl kill -s KILL metald
sudo systemctl start metald

#: clean-up
# Clean up old jailer directories
sudo find /srv/jailer -type d -name "firecracker" -mtime +1 -exec rm -rf {} +

# Clean up socket files
sudo find /opt/metald/sockets -type s -mtime +1 -delete

#: namespaces
# Clean up orphaned namespaces
for ns in $(ip netns list | grep '^ns_vm_' | awk '{print $1}'); do
  if ! pgrep -f "firecracker.*$ns" > /dev/null; then
    sudo ip netns delete "$ns"
  fi
done

#: debug-stop
# Temporary debug mode
sudo systemctl stop metald

#: debug-by-hand
sudo -u metald UNKEY_METALD_LOG_LEVEL=debug /usr/local/bin/metald

#: debug-unit
# Or update systemd environment
sudo systemctl edit metald

#: restart
sudo systemctl restart metald

#: update
# For single node (causes downtime)
sudo systemctl stop metald
sudo cp /new/metald /usr/local/bin/metald
sudo systemctl start metald

#: new-settings
# Update environment file
sudo vim /etc/metald/metald.env

# Reload and restart
sudo systemctl daemon-reload
sudo systemctl restart metald

#: stop
sudo systemctl stop metald

#: begin
sudo systemctl start metald

#: isolate
iptables -I INPUT -p tcp --dport 8080 -j REJECT

#: evidence
sudo tar -czf /tmp/incident-$(date +%Y%m%d).tar.gz \
  /var/log/metald/ \
  /var/lib/metald/ \
  /srv/jailer/

#: limits
# Increase file descriptor limits
echo "metald soft nofile 65536" | sudo tee -a /etc/security/limits.conf
echo "metald hard nofile 65536" | sudo tee -a /etc/security/limits.conf

#: kernel-limits
# Increase network namespace limit
echo "user.max_net_namespaces = 2000" | sudo tee -a /etc/sysctl.conf

# Increase inotify limits for monitoring
echo "fs.inotify.max_user_instances = 512" | sudo tee -a /etc/sysctl.conf
echo "fs.inotify.max_user_watches = 524288" | sudo tee -a /etc/sysctl.conf

#: vacuum
# Rotate logs
sudo journalctl --vacuum-time=1d
